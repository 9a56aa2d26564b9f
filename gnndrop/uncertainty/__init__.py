"""Monte-Carlo dropout and what to make of it: samples, measures, calibration, ranking, strata."""

from gnndrop.uncertainty.prediction import Prediction
from gnndrop.uncertainty.sampling import mc_predict, sample_seed
from gnndrop.uncertainty.sites import Site

__all__ = ["Prediction", "Site", "mc_predict", "sample_seed"]
