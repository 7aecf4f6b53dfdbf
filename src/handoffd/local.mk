# src/handoffd
