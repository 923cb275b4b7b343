"""What people see: terminal tables, asset metadata, model cards and the weekly page."""
