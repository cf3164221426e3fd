"""What is measured, always with the false-positive rate beside the rest."""

import numpy as np
from sklearn.metrics import roc_auc_score


def threshold(normal_scores, rate):
    """The score that a share `rate` of held-out normals reaches: a nominal false-positive rate."""
    return float(np.quantile(normal_scores, 1 - rate))


def at_threshold(truth, scores, cut):
    """Figures of calling every score >= cut an attack: shares, 0 to 1, by name.

    truth is 0/1 [rows], scores float [rows].
    """
    called, attack = scores >= cut, truth == 1
    hits, false = (called & attack).sum(), (called & ~attack).sum()
    misses = (~called & attack).sum()
    return {
        "accuracy": float((called == attack).mean()),
        "f1": float(2 * hits / (2 * hits + false + misses)),
        "precision": float(hits / max(hits + false, 1)),
        "recall": float(hits / max(attack.sum(), 1)),
        "fpr": float(false / max((~attack).sum(), 1)),
    }


def auc(truth, scores):
    """Area under the ROC curve."""
    return float(roc_auc_score(truth, scores))


def mean_sd(runs):
    """Per name, the mean and the sample standard deviation over a list of equal dicts."""
    return {name: (float(np.mean([run[name] for run in runs])),
                   float(np.std([run[name] for run in runs], ddof=1)) if len(runs) > 1 else 0.0)
            for name in runs[0]}
