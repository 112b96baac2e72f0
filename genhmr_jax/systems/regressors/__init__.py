"""The two strongest published regressors, HMR2.0 and TokenHMR; their weights import exactly."""
