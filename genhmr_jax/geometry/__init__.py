"""Arrays in, arrays out, no network: cameras, crops, bodies, keypoints and metrics."""
