"""What pyproject.toml can't say: C libraries that Python never imports, and two folders that move into the package."""

from setuptools import Extension, find_namespace_packages, setup

# conf/ and experiments/ stand at the top, where one looks for them; a wheel has them inside the package.
SHIPPED = {"runner.conf": "conf", "runner.experiments": "experiments"}

setup(
    packages=[*find_namespace_packages(include=["runner", "runner.*"]), *SHIPPED],
    package_dir=SHIPPED,
    package_data={
        **{package: ["**/*.yaml", "**/*.in", "**/*.lock"] for package in SHIPPED},
        "runner.report": ["*.j2"],
        "runner.worker": ["*.c"],
    },
    ext_modules=[
        Extension(
            "runner.worker._itt_collector",
            ["runner/worker/itt_collector.c"],
            extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"],
            py_limited_api=True,
            # Without a C compiler the runner works; ITT is then "unavailable", with the reason.
            optional=True,
        ),
        Extension(
            "runner.worker._machine_peak",
            ["runner/worker/machine_peak.c"],
            extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread"],
            extra_link_args=["-pthread"],
            py_limited_api=True,
            # Without it a peak is that of torch's own products only.
            optional=True,
        ),
    ],
    # They use nothing of Python's, so that one wheel serves all versions.
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
