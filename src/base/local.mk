# src/base
noinst_LTLIBRARIES += libbase.la
libbase_la_SOURCES = src/base/sys.c src/base/sys.h
