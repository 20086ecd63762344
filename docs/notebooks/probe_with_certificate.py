# %% [markdown]
# # A linear probe with a certificate
#
# How far is a fit from the optimum? Most solvers stop when a gradient is small, and leave open how
# much better the best classifier would have been. `minimize` says it: with each result comes an
# upper bound on the gap, proven by duality. This notebook holds the bound beside the true gap, and
# looks at what was learnt.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxclf import load_dataset, losses, make_batch, make_objective, metrics, minimize, penalties
from jaxclf.models import linear

train, test = (load_dataset("digits", split=split) for split in ("train", "test"))
batch = make_batch(train.features / 16, train.labels)
objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(1e-3))
start = linear.LinearParams(np.zeros((10, 64), np.float32), np.zeros(10, np.float32))

best = minimize(objective, start, batch, tol=1e-9)
print(f"{best.status}: {best.value:.9f}, at most {best.gap_bound:.1e} above the minimum")
print(best.solver)

# %% [markdown]
# ## The bound beside the truth
#
# `max_steps` ends a fit early. The bound of each such fit is never below its true gap, which is
# known here to nine digits, and it falls with it.

# %%
steps = range(1, 8)
early = [minimize(objective, start, batch, tol=1e-9, max_steps=most) for most in steps]
gaps = [result.value - best.value for result in early]
bounds = [result.gap_bound for result in early]
assert all(bound >= gap for bound, gap in zip(bounds, gaps, strict=True))

figure, axes = plt.subplots(figsize=(6.4, 3.4))
axes.semilogy(steps, bounds, "o-", color="#0072b2", label="bound that comes with the result")
axes.semilogy(steps, gaps, "s--", color="#d55e00", label="true gap")
axes.set(xlabel="steps of newton_cg", ylabel="objective above the minimum, nats")
axes.grid(alpha=0.3)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## What was learnt
#
# The rows of the weights are images. Blue pixels speak for the digit, red ones against it.

# %%
weights = np.asarray(best.params.weights).reshape(10, 8, 8)
figure, axes = plt.subplots(2, 5, figsize=(6.4, 2.9))
for digit, (image, place) in enumerate(zip(weights, axes.flat, strict=True)):
    place.imshow(image, cmap="RdBu", vmin=-abs(weights).max(), vmax=abs(weights).max())
    place.set_title(digit, fontsize=9)
    place.axis("off")
plt.show()

logits = jax.vmap(linear.logits, (None, 0))(best.params, test.features / 16)
print("accuracy on the test rows", float(metrics.accuracy(logits, test.labels)))

# %% [markdown]
# [What a certificate is](../certificates.md) has the theorem and its proof, and
# [Statuses](../statuses.md) says what is returned where no bound can be had.
