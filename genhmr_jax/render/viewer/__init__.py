"""The viewer: one HTML file that shows a recovered photo or clip without a network."""
