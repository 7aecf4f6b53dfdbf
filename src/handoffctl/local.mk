# src/handoffctl
