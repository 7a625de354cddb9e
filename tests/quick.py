"""What processes of their own are started with."""

# Most of their time goes into compiling: see the flags of conftest.py.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)
