"""Systems that a learned one has to beat, evaluated through the same code.

Public: `items`, `lists`, `registry`, `sasrec`.
"""
