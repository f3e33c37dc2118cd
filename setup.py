"""The one thing that pyproject.toml can't say: the ITT collector is a C library that Python never imports."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "runner.worker._itt_collector",
            ["runner/worker/itt_collector.c"],
            extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"],
            py_limited_api=True,
            # Without a C compiler the runner works; ITT is then "unavailable", with the reason.
            optional=True,
        )
    ]
)
