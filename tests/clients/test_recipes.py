"""The snippets of the documentation that need another package."""

import pytest

from tests import helper
from tests.snippets import PAGES, packages, page_name, run

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore"),  # what other packages warn of
]

RECIPES = [
    pytest.param(page, package, id=f"{page_name(page)}-{package}")
    for page in PAGES
    for package in packages(page.read_text(encoding="utf-8"))
]


def test_the_recipes_are_found():
    found = {recipe.values[1] for recipe in RECIPES}
    assert found == {
        "bayesflow",
        "keras_hub",
        "keras_tuner",
        "mlflow",
        "scikeras",
        "wandb",
    }


@pytest.mark.parametrize(("page", "package"), RECIPES)
def test_every_recipe_runs(page, package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    reason = f"{package} is not installed here; `make test-clients` brings it"
    pytest.importorskip(package, reason=reason, exc_type=ImportError)
    helper.keras.utils.set_random_seed(0)
    text = page.read_text(encoding="utf-8")
    run(text, str(page), {"__name__": "snippets"}, package)
