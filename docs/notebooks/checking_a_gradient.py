# %% [markdown]
# # Checking a custom gradient
#
# A derivative rule that is wrong by a tenth of a percent still trains. It trains to the wrong
# place, and no curve shows it. `check_gradients` finds such a rule, also in float32, and names the
# coordinate.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxclf import check_gradients


def make_log_loss(slip):
    """Softmax cross-entropy with a gradient of its own, in which class 2 is off by ``slip``."""

    @jax.custom_vjp
    def log_loss(logits):
        return jax.nn.logsumexp(logits) - logits[0]

    def forward(logits):
        return log_loss(logits), jax.nn.softmax(logits)

    def backward(p, cotangent):
        gradient = p.at[0].add(-1.0)
        return (cotangent * gradient.at[2].multiply(1 + slip),)

    log_loss.defvjp(forward, backward)
    return log_loss


logits = np.array([0.3, -1.2, 2.0, 0.1], np.float32)
print(check_gradients(make_log_loss(1e-3), (logits,)))

# %% [markdown]
# ## The right rule
#
# The same rule without the slip passes. In a test, `assert_gradients` raises an error with the
# report.

# %%
report = check_gradients(make_log_loss(0.0), (logits,))
assert report
print(report)

# %% [markdown]
# ## Why a plain difference is not enough
#
# One difference quotient has two errors. With a large step the curve bends, and with a small one
# the digits cancel. In float32 a slip of 0.1 % shows only for steps in a range that nobody tells
# you, and that is another one for each function. The check takes its differences in float64,
# extrapolates them, and estimates the error that is left.

# %%
steps = np.geomspace(1e-7, 1, 60)
direction = np.array([0.0, 0.0, 1.0, 0.0])
true = np.exp(2.0 - np.log(np.exp(logits.astype(np.float64)).sum()))

figure, axes = plt.subplots(figsize=(6.4, 3.4))
for dtype, color in ((np.float32, "#d55e00"), (np.float64, "#0072b2")):
    with jax.enable_x64(True):
        f = jax.jit(make_log_loss(0.0))
        z = jnp.asarray(logits, dtype)
        d = jnp.asarray(direction, dtype)
        differences = [
            (float(f(z + dtype(h) * d)) - float(f(z - dtype(h) * d))) / (2 * h) for h in steps
        ]
    errors = np.abs(np.array(differences) / true - 1)
    axes.loglog(steps, np.maximum(errors, 1e-12), color=color, label=dtype.__name__)
axes.axhline(1e-3, color="0.4", ls="--", lw=1, label="a slip of 0.1 %")
axes.set(xlabel="step of the difference", ylabel="relative error of the derivative")
axes.legend(frameon=False)
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# [Checking gradients](../gradients.md) counts how often checks err, and shows how to test many
# functions at once.
