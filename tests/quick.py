"""What processes of their own are started with."""

# Most of their time goes into compiling, which takes two thirds as long as at level 1.
QUICK = "--xla_backend_optimization_level=0"
