"""BioPose (WACV 2025, arXiv 2501.07800): joint angles of an anatomical skeleton."""
