"""The seven assets. Each reads its inputs, calls one or two functions of `ml`, and tells what came of it."""
