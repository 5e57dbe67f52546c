# SPDX-License-Identifier: Apache-2.0
"""tte: turns a trained model into int8 firmware that keeps training on the microcontroller."""

__version__ = "0.1.0"
