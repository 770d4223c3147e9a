from jdd.data import CATALOGUE, lookup


def test_the_table_is_consistent():
    for name, facts in CATALOGUE.items():
        assert facts.name == name and lookup(name) is facts
        assert len(facts.class_names) in (0, facts.classes)
        assert len(facts.mean) == len(facts.std)
        assert len(facts.mean) in (0, facts.shape[2])
        assert facts.settings in CATALOGUE
        assert set(facts.dsa.split("_")) <= {"color", "crop", "cutout", "flip", "scale", "rotate"}


def test_published_values():
    cifar = CATALOGUE["cifar10"]
    assert cifar.mean == (0.4914, 0.4822, 0.4465) and cifar.std == (0.2023, 0.1994, 0.2010)
    assert CATALOGUE["cifar100"].classes == len(set(CATALOGUE["cifar100"].class_names)) == 100
    assert list(CATALOGUE["cifar100"].class_names) == sorted(CATALOGUE["cifar100"].class_names)
    assert "flip" not in CATALOGUE["mnist"].dsa and "flip" not in CATALOGUE["svhn"].dsa
    assert "flip" in CATALOGUE["fashion_mnist"].dsa


def test_the_jpeg_copy_is_a_dataset_of_its_own_name():
    copy = CATALOGUE["cifar10_jpeg"]
    assert copy.settings == "cifar10" and "lossy" in copy.note
    assert copy._replace(name="", note="", tfds="", source="", lossless=True) == CATALOGUE[
        "cifar10"
    ]._replace(name="", tfds="", source="")


def test_an_own_name_is_unknown():
    assert lookup("my_photos") is None
