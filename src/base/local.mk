# src/base
