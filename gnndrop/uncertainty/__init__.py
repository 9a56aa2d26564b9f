"""Monte-Carlo dropout and what to make of it.

    mc_predict(model, ...)        samples, summarized as a `Prediction`
    measures                      entropies, mutual information, likelihood, Brier score
    calibration                   calibration error, reliability diagram, temperature
    ranking                       risk and coverage, referral, detection of errors
    strata                        the same by homophily, degree, distance to the training nodes

All measures are plain functions of arrays; probabilities are T x N x C by sample, or N x C, and
entropies are in nats.
"""

from gnndrop.uncertainty.calibration import (
    Reliability,
    expected_calibration_error,
    reliability_diagram,
    temperature_scale,
)
from gnndrop.uncertainty.measures import (
    SampleSummary,
    brier_score,
    confidence,
    energy,
    entropy,
    expected_entropy,
    margin,
    mutual_information,
    mutual_information_error,
    negative_log_likelihood,
    predictive_entropy,
    variance,
    variation_ratio,
)
from gnndrop.uncertainty.prediction import Prediction
from gnndrop.uncertainty.ranking import (
    Referral,
    RiskCoverage,
    aurc,
    average_precision,
    excess_aurc,
    fpr95,
    misclassification_auroc,
    pavpu,
    refer,
    risk_coverage,
)
from gnndrop.uncertainty.sampling import mc_predict, sample_seed
from gnndrop.uncertainty.sites import Site
from gnndrop.uncertainty.strata import Strata, strata

__all__ = [
    "Prediction",
    "Referral",
    "Reliability",
    "RiskCoverage",
    "SampleSummary",
    "Site",
    "Strata",
    "aurc",
    "average_precision",
    "brier_score",
    "confidence",
    "energy",
    "entropy",
    "excess_aurc",
    "expected_calibration_error",
    "expected_entropy",
    "fpr95",
    "margin",
    "mc_predict",
    "misclassification_auroc",
    "mutual_information",
    "mutual_information_error",
    "negative_log_likelihood",
    "pavpu",
    "predictive_entropy",
    "refer",
    "reliability_diagram",
    "risk_coverage",
    "sample_seed",
    "strata",
    "temperature_scale",
    "variance",
    "variation_ratio",
]
