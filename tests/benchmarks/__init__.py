# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: they print, they assert nothing. `python -m tests.benchmarks --help`."""
