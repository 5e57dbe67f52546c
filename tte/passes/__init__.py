# SPDX-License-Identifier: Apache-2.0
"""Pure functions from graph to graph or plan, one file each; none imports another."""
