"""The diagnosis of a run, from a summary of bounded size to words.

| file | from | to |
|---|---|---|
| `model.py` | a Keras model | what of it matters here, as plain data |
| `summary.py` | rows and events, as they come | `RunSummary`, of bounded size |
| `heads.py` | a Keras model | its last layers, each with its loss |
| `settings.py` | that data | settings that contradict each other, `Finding`s |
| `data.py` | that data, with the first batch | values, ranges, scales and labels |
| `broken.py` | a summary | where steps that are not finite broke |
| `kernels.py` | a summary | `Kernel`s: weights and inputs against what is usual |
| `penalty.py` | a summary | regularizers that are too strong |
| `poor.py` | a summary | runs that learn little, and why |
| `symptoms.py` | a summary | what the run suffers from, `Finding`s |
| `causes.py` | a summary and its symptoms | why, and what to change, `Finding`s |

The words are put together in `keras_gradwatch.reports.report`.
"""

from keras_gradwatch.reports.diagnosis.causes import causes
from keras_gradwatch.reports.diagnosis.finding import Finding
from keras_gradwatch.reports.diagnosis.summary import RunSummary
from keras_gradwatch.reports.diagnosis.symptoms import symptoms

__all__ = ["Finding", "RunSummary", "causes", "symptoms"]
