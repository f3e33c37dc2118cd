# Short processes: what is tested on a scheduler is where they run and what becomes of them.
ROUNDS = 3
WORDS = (
    "allocator=ptmalloc,jemalloc", "model=tiny", "warmup=2", "iterations=10", "capture=[]", f"rounds={ROUNDS}",
    "reruns=0", "try_models=false",
)  # fmt: skip
