"""The two strongest published regressors, HMR2.0 and TokenHMR, as networks of ours: their weights import exactly (genhmr_jax/convert/)."""
