"""Names under which the host keeps what we add to a MODEL, and what we tell of a call in its transformer options."""

OURS = "ei2"  # attachment, additional model, injection and wrappers
TOKEN = "ei2"  # transformer option: which inflated model a call belongs to
CLIP = "ei2_clip"  # transformer option: the clip that is being sampled, a `frames.Clip`
WINDOWS = "ei2_windows"  # wrappers that only a sampling in windows has
CONTROL = "ei2_control"  # transformer option: what a call records of a source, or takes from it
ANCHORS = "ei2_anchors"  # transformer option: what the windows of this step see besides themselves
AD_PARAMS = "ad_params"  # transformer option, AnimateDiff-Evolved's: which frames of the clip a call holds
