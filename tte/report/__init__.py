# SPDX-License-Identifier: Apache-2.0
"""Reports of a run: the JSON schema, tables and plots."""
