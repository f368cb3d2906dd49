"""Only what pyproject.toml cannot say: the wheel holds a native module, made by native.py, for every Python from 3.10 on."""

from setuptools import setup

setup(cffi_modules=["native.py:ffi"], options={"bdist_wheel": {"py_limited_api": "cp310"}})
