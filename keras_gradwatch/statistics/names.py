"""The names of the statistics that are measured for each variable."""

NAMES = (
    "norm",
    "max_abs",
    "mean",
    "std",
    "zero_fraction",
    "nonfinite_count",
    "weight_norm",
    "update_ratio",
)
"""The statistics of one variable, in the order of the columns of a matrix of them.

| name | of one variable with gradient g, weights w, and update Δw | unit |
|---|---|---|
| `norm` | ‖g‖₂ | gradient |
| `max_abs` | max |gᵢ| | gradient |
| `mean` | mean gᵢ | gradient |
| `std` | population standard deviation of gᵢ | gradient |
| `zero_fraction` | fraction of gᵢ that are exactly 0 | 0 to 1 |
| `nonfinite_count` | number of gᵢ that are NaN or ±Inf | count |
| `weight_norm` | ‖w‖₂ before the update | weight |
| `update_ratio` | ‖Δw‖₂ / ‖w‖₂ of the update that was made | ratio |

`norm` and `nonfinite_count` are measured at every step. The others cost further passes
over the gradients or the weights, and are only measured on request: at the first step
and every `sample_freq`-th one. If only a detector reads them, the first step is not
sampled.
"""

ALWAYS = ("norm", "nonfinite_count")
OF_UPDATES = ("weight_norm", "update_ratio")
