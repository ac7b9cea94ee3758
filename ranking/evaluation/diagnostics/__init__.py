"""What an average of accuracy hides: shortcuts in the data, exposure, calibration, stability of lists.

Public: `calibration`, `exposure`, `shortcuts`, `stability`.
"""
