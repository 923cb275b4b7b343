"""Asset checks: warnings about a week, and the proof that it reads nothing of its future."""
