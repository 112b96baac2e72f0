"""The lifter of the detector: keypoints of our own body from BlazePose's evidence."""
