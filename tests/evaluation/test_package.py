import samtune
from samtune.evaluation import Evaluation, evaluate, predict


def test_the_package_gives_its_functions():
    assert evaluate is samtune.evaluate
    assert callable(predict) and evaluate.__annotations__["return"] == Evaluation.__name__
