# %% [markdown]
# # Is my loss convex?
#
# A convex loss of the logits makes a linear model's objective convex, so that descent reaches the
# optimum from every start. `certify_convexity` answers with a proof, with three points that refute
# it, or with "unknown", never with a guess from samples.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxclf import certify_convexity, load_dataset, losses, make_batch, penalties

log_loss = certify_convexity(losses.bernoulli_nll)
squared = certify_convexity(losses.sigmoid_squared_error, labels=[1])
print("log loss:", type(log_loss).__name__)
for reason in log_loss.proof:
    print("  ", reason)
print("squared error on the probability:", type(squared).__name__)
for piece in squared.curvature.pieces:
    print("  ", piece)

# %% [markdown]
# The second loss bends down below `-log 2`, where the model is wrong and sure of it. The witness is
# three points of the curve: the middle one lies above the straight line between the ends.

# %%
witness = squared.witness
ends = np.array([float(witness.a), float(witness.b)])
z = np.linspace(-8, 4, 400)

figure, axes = plt.subplots(1, 2, figsize=(6.8, 3.1), sharex=True)
for place, loss in zip(axes, (losses.bernoulli_nll, losses.sigmoid_squared_error), strict=True):
    place.plot(z, jax.vmap(loss, (0, None))(z, 1), color="#0072b2")
    place.set(title=loss.__name__, xlabel="logit, label 1")
    place.grid(alpha=0.3)
values = jax.vmap(losses.sigmoid_squared_error, (0, None))(ends, 1)
axes[1].plot(ends, values, "o-", color="#d55e00", label="two points and their chord")
axes[1].plot(ends.mean(), losses.sigmoid_squared_error(ends.mean(), 1), "k^", label="the middle")
axes[1].legend(frameon=False, fontsize=8, loc="lower left")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## A loss of your own
#
# Any function of JAX can be asked about. Here are three:


# %%
def huber(z, y):
    return jnp.where(jnp.abs(z - y) < 1, (z - y) ** 2 / 2, jnp.abs(z - y) - 0.5)


def focal(z, y):
    return losses.bernoulli_nll(z, y) * (1 - jax.nn.sigmoid(jnp.where(y == 1, z, -z))) ** 2


def brier(z, y):
    return losses.softmax_squared_error(z, y)


for loss, options in ((huber, {}), (focal, {}), (brier, {"num_logits": 3})):
    print(f"{loss.__name__:6}", type(certify_convexity(loss, **options)).__name__)

# %% [markdown]
# ## On your rows
#
# With `data=` the question is about the objective over those rows, and the answer has the smallest
# L2 strength that is proven to make it convex.

# %%
iris = load_dataset("iris")
rows = make_batch(iris.features - iris.features.mean(0), iris.labels > 1)
verdict = certify_convexity(losses.sigmoid_squared_error, data=rows)
print(type(verdict).__name__, "· convex with l2 of", verdict.ridge)
mended = certify_convexity(
    losses.sigmoid_squared_error, data=rows, penalty=penalties.l2(1.01 * verdict.ridge)
)
print(type(mended).__name__, "with it")

# %% [markdown]
# [Verdicts on convexity](../convexity.md) says what each answer carries.
