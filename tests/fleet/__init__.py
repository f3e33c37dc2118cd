# Short processes: what is tested on a scheduler is where they run and what becomes of them.
WORDS = (
    "experiment=allocator_settings", "ipex=off", "model=conv_relu", "batch_size=8", "warmup=2", "iterations=10",
    "capture=[]",
    "rounds=2", "reruns=0", "try_models=false",
)  # fmt: skip
