"""De-identification of medical images and tables; what it does and cannot know is in docs/imaging/deidentification.md."""

from wardround.data.imaging.deid.dataset import clean
from wardround.data.imaging.deid.held import Held
from wardround.data.imaging.deid.picture import clean_picture
from wardround.data.imaging.deid.policy import Policy, Rules
from wardround.data.imaging.deid.report import Action, Report

__all__ = ["Action", "Held", "Policy", "Report", "Rules", "clean", "clean_picture"]
