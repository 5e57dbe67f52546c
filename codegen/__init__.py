# SPDX-License-Identifier: Apache-2.0
"""Writes a compiled program as a C project. Imported as `tte.codegen`."""
