"""Objectives and regularisers as functions of tensors."""
