"""Where a refresh spends its time and memory."""
