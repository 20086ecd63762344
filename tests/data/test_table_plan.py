"""What the columns of a table become."""

import json

import numpy as np
import pyarrow as pa
import pytest

from jaxclf.data import TableOptions, load_dataset
from jaxclf.data.table_encoding import encode, note_of_unread
from jaxclf.data.table_plan import (
    as_json,
    feature_names,
    from_json,
    indicators,
    label_of,
    make_plan,
)

N = 200
RNG = np.random.default_rng(0)
COLUMNS = {
    "age": [str(x) for x in RNG.integers(1, 90, N)],
    "price": [f"{x:,.2f}" for x in RNG.uniform(1, 1e6, N)],
    "part": [f"{x:.1f}%" for x in RNG.uniform(0, 100, N)],
    "holes": [str(x) if x > 0.3 else "NA" for x in RNG.random(N).round(3)],
    "notes": [str(x) if i else "unknown" for i, x in enumerate(RNG.random(N).round(3))],
    "sex": RNG.choice(["female", "male"], N).tolist(),
    "deck": RNG.choice(["A", "B", "?"], N).tolist(),
    "town": ["once", *RNG.choice(["Bonn", "Ulm"], N - 1).tolist()],
    "seen": [str(x) for x in np.datetime64("2020-01-01") + RNG.integers(0, 900, N)],
    "id": [str(x) for x in range(1, N + 1)],
    "account": [str(x) for x in 10**17 + RNG.integers(0, 10**9, N)],
    "phone": [str(x) for x in 10**9 + RNG.permutation(10**6)[:N]],
    "name": [f"Person {i}" for i in range(N)],
    "code": [f"c{i}" for i in range(N)],
    "same": ["x"] * N,
    "empty": [""] * N,
    "kind": RNG.choice(["a", "b"], N).tolist(),
}
TABLE = pa.table(COLUMNS)


def plan_of(table=TABLE, **options):
    return make_plan(table, "kind", True, TableOptions(**options), "x.csv")


def test_kinds_and_reasons():
    found = {column.name: column for column in plan_of().columns}
    numbers = ("age", "price", "part", "holes", "notes")
    assert {found[name].kind for name in numbers} == {"number"}
    assert [found[name].style for name in numbers[:3]] == ["", "thousands", "percent"]
    assert found["seen"].kind == "date"
    assert [found[name].kind for name in ("sex", "deck", "town")] == ["category"] * 3
    assert found["notes"].note == "1 of 200 missing, 1 of which are no number, such as 'unknown'"
    assert found["deck"].categories == ("A", "B")
    assert found["deck"].missing
    assert found["town"].others
    reasons = {name: column.note for name, column in found.items() if column.kind == "left out"}
    assert reasons == {
        "id": "it numbers the rows",
        "account": "its whole numbers have 16 digits or more",
        "phone": "its long numbers differ in every row",
        "name": "it is free text: 200 different texts",
        "code": "it is a name of the row: 200 different texts",
        "same": "it is constant",
        "empty": "it is empty",
    }


def test_features_are_what_the_cells_say():
    plan = plan_of()
    features = encode(plan, TABLE, "x.csv", np.arange(N)).features
    found = dict(zip(feature_names(plan), features.T, strict=True))
    assert found["age"].tolist() == [float(x) for x in COLUMNS["age"]]
    assert found["price"].tolist() == [float(x.replace(",", "")) for x in COLUMNS["price"]]
    assert found["part"].tolist() == [float(x[:-1]) for x in COLUMNS["part"]]
    holes = np.array([float("nan") if x == "NA" else float(x) for x in COLUMNS["holes"]])
    assert found["holes: missing"].tolist() == np.isnan(holes).tolist()
    median = np.nanmedian(holes)
    np.testing.assert_array_equal(found["holes"], np.where(np.isnan(holes), median, holes))
    assert found["sex=female"].tolist() == [x == "female" for x in COLUMNS["sex"]]
    assert (found["deck=A"] + found["deck=B"] + found["deck: missing"]).tolist() == [1.0] * N
    assert found["town: other"].tolist() == [1.0] + [0.0] * (N - 1)
    days = np.array(COLUMNS["seen"], "datetime64[D]").astype(float)
    assert found["seen"].tolist() == days.tolist()
    named = dict(zip(feature_names(plan), indicators(plan), strict=True))
    assert not any(named[name] for name in ("age", "price", "seen"))
    assert all(named[name] for name in ("sex=male", "town: other", "holes: missing"))


def test_another_table_with_the_same_columns():
    plan = plan_of()
    names = [name for name in TABLE.column_names if name not in ("kind", "age")]
    other = {name: COLUMNS[name][:3] for name in RNG.permutation(names).tolist()}
    other |= {"town": ["Rome", "Bonn", ""], "sex": ["none", "male", "?"], "extra": ["1", "2", "3"]}
    features = encode(plan, pa.table(other), "y.csv", np.arange(3)).features
    found = dict(zip(feature_names(plan), features.T, strict=True))
    median = np.median([float(x) for x in COLUMNS["age"]])
    assert found["age"].tolist() == [median] * 3
    other = {"seen": ["2020-01-02", "soon", "2020-01-01 12:00"], "age": ["1", "2", "3"]}
    features = encode(plan, pa.table(other), "z", np.arange(3)).features
    days = features[:, feature_names(plan).index("seen")]
    assert days[[0, 2]].tolist() == [18263.0, 18262.5]
    assert found["town: other"].tolist() == [1.0, 0.0, 0.0]
    assert found["town=Bonn"].tolist() == [0.0, 1.0, 0.0]
    assert found["sex=male"].tolist() == [0.0, 1.0, 0.0]
    assert found["sex=female"].tolist() == [0.0, 0.0, 0.0]


def numbers_of(cells, beside=()):
    """The numbers that cells become, in a table with another column."""
    columns = {"x": cells, **({"beside": list(beside)} if beside else {}), "kind": list("ab") * 4}
    table = pa.table(columns)
    plan = make_plan(table, "kind", True, TableOptions(columns=("x",)), "x.csv")
    return encode(plan, table, "x.csv", np.arange(8)).features[:, 0].tolist()


def test_numbers_are_read_as_most_of_the_file_writes_them():
    cells = ["3.25", "2", "1", "4.5", "7", "8.25", "9", "1,234.50"]
    assert numbers_of(cells) == [3.25, 2, 1, 4.5, 7, 8.25, 9, 1234.5]
    cells = ["12", "7", "3", "0,5", "8", "9", "10", "11"]
    assert numbers_of(cells) == [12, 7, 3, 0.5, 8, 9, 10, 11]
    cells = ["0", "1,125", "2,125", "4", "5", "6", "7", "8"]
    assert numbers_of(cells)[:3] == [0, 1125, 2125]
    assert numbers_of(cells, beside=["0,5"] * 8)[:3] == [0, 1.125, 2.125]
    cells = ["$1234.50", "-$12", "£3", "4 €", "5", "6", "7", "8"]
    assert numbers_of(cells)[:4] == [1234.5, -12, 3, 4]


def test_the_same_category_in_other_spellings():
    table = pa.table(
        {"on": ["True", "False"] * 4, "code": ["1", "2"] * 4, "kind": list("aabb") * 2}
    )
    plan = make_plan(table, "kind", True, TableOptions(categorical=("code",)), "x.csv")
    expected = encode(plan, table, "x", np.arange(8)).features
    other = pa.table({"on": [True, False] * 4, "code": [1.0, 2.0] * 4})
    np.testing.assert_array_equal(encode(plan, other, "x", np.arange(8)).features, expected)
    assert expected.sum(0).tolist() == [4.0] * 4


def test_dates_with_zones_and_words_among_them():
    days = ["2020-01-02", "2020-01-01T12:00:00+12:00", "2020-01-03 06:00", *["2020-01-01"] * 20]
    table = pa.table({"x": [*days, "unknown"], "kind": list("ab") * 12})
    plan = make_plan(table, "kind", True, TableOptions(), "x.csv")
    assert plan.columns[0].kind == "date"
    features = encode(plan, table, "x", np.arange(24)).features
    assert features[:3, 0].tolist() == [18263.0, 18262.0, 18264.25]
    assert features[:, 1].tolist() == [0.0] * 23 + [1.0]


def test_columns_that_cannot_be_read_are_refused():
    plan = plan_of()
    wrong = pa.table({"age": ["1,5", "2,5"]})
    with pytest.raises(ValueError, match="'age': expected a number in some row, got '1,5'"):
        encode(plan, wrong, "y.csv", np.arange(2))
    nested = pa.table({"age": ["1"], "sex": [["a"]]})
    with pytest.raises(ValueError, match="column 'sex' cannot be list"):
        encode(plan, nested, "y.csv", np.arange(1))


def test_options_of_columns():
    assert feature_names(plan_of(columns=("age", "id"))) == ("age", "id")
    assert feature_names(plan_of(columns=("age",), missing=("7",))) == ("age", "age: missing")
    dropped = plan_of(drop=("deck", "town"))
    assert not any(name.startswith(("deck", "town")) for name in feature_names(dropped))
    table = pa.table({"code": ["1", "2", "1", "2", "3", "3"], "kind": list("aabbab")})
    named = make_plan(table, "kind", True, TableOptions(categorical=("code",)), "x")
    assert feature_names(named) == ("code=1", "code=2", "code=3")
    with pytest.raises(ValueError, match=r"x\.csv: no column 'wages'; it has 'age', 'price', "):
        plan_of(drop=("wages",))


def test_a_plan_survives_json():
    plan = plan_of()
    assert from_json(json.loads(json.dumps(as_json(plan)))) == plan


@pytest.mark.parametrize(
    ("changes", "of_column", "message"),
    [
        ({"label": {}}, {}, "the label and the marks of missing cells must be texts"),
        ({"marks": [1]}, {}, "the label and the marks of missing cells must be texts"),
        ({}, {"fill": [1, 2]}, "the plan of column 'age' is damaged"),
        ({}, {"name": 1}, "the plan of column 1 is damaged"),
        ({}, {"kind": "exec"}, "the kind of a column must be one of"),
    ],
)
def test_a_plan_of_other_values_is_refused(changes, of_column, message):
    given = json.loads(json.dumps(as_json(plan_of()))) | changes
    given["columns"][0] |= of_column
    with pytest.raises(ValueError, match=message):
        from_json(given)


@pytest.mark.parametrize(
    ("label", "name", "said"),
    [
        (
            None,
            "Species",
            "The labels are taken from the column Species, by its name; --label takes another.",
        ),
        ("2", "Species", ""),
        ("last", "c", ""),
        ("a", "a", ""),
    ],
)
def test_the_label_is_found(label, name, said):
    assert label_of(("a", "Species", "b", "c"), label, "x") == (name, said)


def test_the_last_column_is_the_last_guess():
    said = "The labels are taken from the last column, b; --label takes another."
    assert label_of(("a", "b"), None, "x") == ("b", said)
    with pytest.raises(ValueError, match="x: expected a column '3' with the labels; it has 'a', "):
        label_of(("a", "b"), "3", "x")


def test_the_plan_is_of_the_training_rows(tmp_path):
    rows = [",".join(cells) for cells in zip(*COLUMNS.values(), strict=True)]
    quoted = [row.replace(COLUMNS["price"][i], f'"{COLUMNS["price"][i]}"') for i, row in
              enumerate(rows)]  # fmt: skip
    path = tmp_path / "x.csv"
    path.write_text("\n".join([",".join(COLUMNS), *quoted]) + "\n")
    train, test = (load_dataset(str(path), split=part, label="kind") for part in ("train", "test"))
    assert train.plan == test.plan
    assert train.plan != load_dataset(str(path), label="kind").plan
    assert len(train.labels) + len(test.labels) == N
    age = train.features[:, train.feature_names.index("age")]
    fill = next(column.fill for column in train.plan.columns if column.name == "age")
    assert fill == np.median(age)


def test_labels_are_classes_as_they_were_written(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,label\n1,10\n2,9\n3,\n")
    found = load_dataset(f"csv:{path}")
    assert found.class_names == ("9", "10")
    assert "1 rows without a label are left out." in found.notes
    path.write_text("x,label\n1,1.5\n2,9\n")
    regression = load_dataset(f"csv:{path}")
    assert regression.class_names == ()
    np.testing.assert_array_equal(regression.labels, np.float32([1.5, 9]))
    path.write_text("x,label\n1,01234\n2,1234\n3,1e3\n")
    assert load_dataset(f"csv:{path}").class_names == ("01234", "1234", "1e3")
    path.write_text("x,label\n0.1,1\n2,0\n")
    assert load_dataset(f"csv:{path}", dtype=np.float64).features[0, 0] == 0.1


def test_numbers_of_a_typed_table_are_taken_however_they_were_written():
    """A model of a table with decimal commas gets the same numbers from Parquet."""
    text = pa.table({"x": ["0,25", "1,5", "2.000,75", "3,5"] * 4, "kind": ["a", "b"] * 8})
    plan = make_plan(text, "kind", True, TableOptions(), "x.csv")
    assert plan.columns[0].style == "decimal comma"
    typed = pa.table({"x": [0.25, 1.5, 2000.75, 3.5] * 4})
    expected = encode(plan, text, "x.csv", np.arange(16)).features
    np.testing.assert_array_equal(encode(plan, typed, "x", np.arange(16)).features, expected)
    assert expected[:4, 0].tolist() == [0.25, 1.5, 2000.75, 3.5]


def test_cells_that_are_no_numbers_are_named():
    table = pa.table({"x": ["1", "2", "3", "4"] * 4, "kind": ["a", "b"] * 8})
    plan = make_plan(table, "kind", True, TableOptions(), "x.csv")
    found = encode(plan, pa.table({"x": ["1", "?", "about 3", "unclear"]}), "y.csv", np.arange(4))
    assert found.features[:, 0].tolist() == [1, 2.5, 2.5, 2.5]
    assert found.unread == {"x": "about 3"}
    assert note_of_unread(found.unread) == (
        "Cells that the model does not know count as missing: 'x' has 'about 3'.",
    )
    assert not encode(plan, pa.table({"x": ["1", "?"]}), "y.csv", np.arange(2)).unread


def test_booleans_may_be_written_as_zero_and_one():
    table = pa.table({"x": [True, False, None, True] * 4, "kind": ["a", "b"] * 8})
    plan = make_plan(table, "kind", True, TableOptions(), "x.csv")
    assert plan.columns[0].categories == ("false", "true")
    expected = encode(plan, table, "x.csv", np.arange(16)).features
    for x in ([1, 0, None, 1], ["TRUE", "False", "", "true"], [1.0, 0.0, np.nan, 1.0]):
        found = encode(plan, pa.table({"x": x * 4}), "x", np.arange(16))
        np.testing.assert_array_equal(found.features, expected)
        assert not found.unread
