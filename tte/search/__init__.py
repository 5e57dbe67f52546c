# SPDX-License-Identifier: Apache-2.0
"""Which layers and channels to train: contributions, and a search under a measured budget."""
