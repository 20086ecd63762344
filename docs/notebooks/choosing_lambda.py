# %% [markdown]
# # Choosing λ with folds
#
# The penalty `λ/2 ‖W‖²` makes weights smaller. Too little of it and a classifier of few rows is
# sure of things that are not so; too much, and it learns nothing. Here thirteen strengths are
# judged by five folds, with 65 certified fits in one call.

# %%
import matplotlib.pyplot as plt
import numpy as np

from jaxclf import load_dataset, make_batch, sweep

train, test = (load_dataset("breast_cancer", split=split) for split in ("train", "test"))
middle, scale = train.features.mean(0), train.features.std(0)
rows, test_rows = (make_batch((d.features - middle) / scale, d.labels) for d in (train, test))

strengths = np.geomspace(1e-6, 1, 13)
result = sweep({"l2": strengths, "fold": range(5)}, rows, test=test_rows, rule="one_standard_error")
chosen = result.selection
print(len(result.table), "fits:", {row["status"] for row in result.table})
print("chosen λ =", chosen.lane["l2"], "· on the test rows", chosen.test)

# %% [markdown]
# ## The curve
#
# Each point is the mean log loss over the rows that a fold was not trained on, with its standard
# error. The rule takes the strongest penalty within one standard error of the best.

# %%
means = np.array([candidate.mean for candidate in chosen.candidates])
errors = np.array([candidate.error for candidate in chosen.candidates])
best = means.argmin()

figure, axes = plt.subplots(figsize=(6.4, 3.4))
axes.errorbar(strengths, means, errors, fmt="o-", color="#0072b2", capsize=3)
limit = means[best] + errors[best]
axes.axhline(limit, color="0.5", lw=1, ls="--", label="one standard error above the best")
axes.axvline(chosen.lane["l2"], color="#d55e00", label="chosen")
axes.set(xscale="log", yscale="log", xlabel="λ", ylabel="log loss on held-out rows, nats")
axes.legend(loc="upper right")
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## What the penalty does to the weights
#
# Every lane's parameters are in `result.params`. These are the weights of the first fold along λ.

# %%
first_fold = [row["lane"]["fold"] == 0 for row in result.table]
weights = np.asarray(result.params.weights)[first_fold].reshape(len(strengths), -1)

figure, axes = plt.subplots(figsize=(6.4, 3.4))
axes.plot(strengths, weights, lw=1)
axes.axvline(chosen.lane["l2"], color="#d55e00")
axes.set(xscale="log", yscale="symlog", xlabel="λ", ylabel="weights, one line for each feature")
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# The page [Choosing λ](../choosing-a-penalty.md) has the other ways, and [Sweeps](../sweeps.md) the
# keys of a grid.
