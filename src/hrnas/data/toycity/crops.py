class ToyCityCrops:
    NAMES = ("a", "b")
