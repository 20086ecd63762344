"""Tables as people have them: each is read at the first try, and what was recognised is said."""

import gzip
import zipfile

import numpy as np
import pytest

from jaxclf.data import TableOptions, load_dataset
from jaxclf.data.streams import feature_chunks
from jaxclf.data.table_plan import plan_of_numbers

WIDTHS = [1.5, 2.0, 3.25, 4.0, 5.5, 6.0]
KINDS = ["ham", "spam", "ham", "spam", "ham", "spam"]


def text(delimiter=",", decimal=".", header=("width", "kind"), quote=""):
    rows = [(str(w).replace(".", decimal), kind) for w, kind in zip(WIDTHS, KINDS, strict=True)]
    rows = [header, *rows] if header else rows
    return "".join(delimiter.join(f"{quote}{x}{quote}" for x in row) + "\n" for row in rows)


SHAPES = {
    "commas": (text(), ()),
    "semicolons": (text(";"), ("Fields are separated by a semicolon.",)),
    "tabs": (text("\t"), ("Fields are separated by a tab.",)),
    "bars": (text("|"), ("Fields are separated by a bar.",)),
    "decimal commas": (text(";", ","), ("Fields are separated by a semicolon.",)),
    "decimal commas in tabs": (text("\t", ","), ("Fields are separated by a tab.",)),
    "quotes": (text(quote='"'), ()),
    "single quotes": (text(quote="'"), ()),
    "Windows lines": (text().replace("\n", "\r\n"), ()),
    "no line at the end": (text().rstrip(), ()),
    "empty lines": (text().replace("\n", "\n\n"), ()),
    "comments": (
        "# from a device\n# in cm\n" + text(),
        ("Lines at the start that are comments: 2.",),
    ),
    "no header": (text(header=()), ("There is no header, so the columns are named 1 … 2.",)),
    "spaces": (text(", "), ()),
    "an empty line at the start": ("\n" + text(), ()),
    "an empty line after comments": (
        "# cm\n\n" + text(),
        ("Lines at the start that are comments: 1.",),
    ),
    "bars in a text": (text().replace("ham", "a|b").replace("spam", "c|d"), ()),
    "a mark at the start": ("\ufeff" + text(), ()),
    "an empty column": (text().replace("\n", ",\n"), ()),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_text_of_many_shapes(tmp_path, shape):
    written, notes = SHAPES[shape]
    (tmp_path / "x.csv").write_text(written, "utf-8", newline="")
    found = load_dataset(f"csv:{tmp_path / 'x.csv'}", label="2" if shape == "no header" else "kind")
    assert found.features[:, 0].tolist() == WIDTHS
    kinds = [
        found.class_names[k].replace("a|b", "ham").replace("c|d", "spam") for k in found.labels
    ]
    assert kinds == KINDS
    assert found.feature_names == (("1",) if shape == "no header" else ("width",))
    assert found.notes == notes


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8", ""), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("cp1252", "cp1252")],
)
def test_encodings(tmp_path, encoding, said):
    (tmp_path / "x.csv").write_bytes(text(header=("größe", "kind")).encode(encoding))
    found = load_dataset(f"csv:{tmp_path / 'x.csv'}", label="kind")
    assert found.feature_names == ("größe",)
    assert found.features[:, 0].tolist() == WIDTHS
    assert found.notes == ((f"The text is {said}, not UTF-8.",) if said else ())


def test_packed_files_and_names_without_a_kind(tmp_path):
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write(text())
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w") as archive:
        archive.writestr("folder/a.csv", text())
        archive.writestr("__MACOSX/folder/._a.csv", "x")
    (tmp_path / "a.csv").write_text(text())
    for name in ("a.csv", "a.csv.gz", "a.csv.zip"):
        assert load_dataset(str(tmp_path / name), label="kind").features[:, 0].tolist() == WIDTHS
    with zipfile.ZipFile(tmp_path / "book.zip", "w") as archive:
        archive.writestr("xl/workbook.xml", "")
        archive.writestr("xl/sheet1.xml", "")
    with pytest.raises(ValueError, match="a workbook of Excel: save the sheet as CSV"):
        load_dataset(f"csv:{tmp_path / 'book.zip'}")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", text())
        archive.writestr("b.csv", text())
    with pytest.raises(
        ValueError, match=r"expected one file in the archive, it has 'a\.csv', 'b\.c"
    ):
        load_dataset(f"csv:{tmp_path / 'two.zip'}")


def test_what_is_in_a_file_tells_what_it_is(tmp_path):
    (tmp_path / "adult.data").write_text(text(), "utf-8")
    assert (
        load_dataset(str(tmp_path / "adult.data"), label="kind").features[:, 0].tolist() == WIDTHS
    )


@pytest.mark.parametrize("labels", ["aaab", "abcd"])
def test_classes_too_small_to_be_split(tmp_path, labels):
    (tmp_path / "x.csv").write_text(
        "x,kind\n" + "".join(f"{i * i % 5},{y}\n" for i, y in enumerate(labels))
    )
    with pytest.raises(ValueError, match=r"cannot be split: class '.' has one row"):
        load_dataset(str(tmp_path / "x.csv"), split="train")


def test_parquet_has_the_features_of_text(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    columns = {
        "size": [None, *rng.normal(size=39).tolist()],
        "count": rng.integers(0, 9, 40).tolist(),
        "on": (rng.random(40) > 0.5).tolist(),
        "day": np.arange("2020-01-01", "2020-02-10", dtype="datetime64[D]").tolist(),
        "kind": rng.choice(["a", "b"], 40).tolist(),
    }
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "x.parquet")
    columns["on"] = [str(x).lower() for x in columns["on"]]
    rows = [
        ["" if x is None else str(x) for x in row] for row in zip(*columns.values(), strict=True)
    ]
    (tmp_path / "x.csv").write_text("\n".join(",".join(row) for row in [list(columns), *rows]))
    found = load_dataset(f"parquet:{tmp_path / 'x.parquet'}", label="kind", dtype=np.float64)
    same = load_dataset(f"csv:{tmp_path / 'x.csv'}", label="kind", dtype=np.float64)
    assert found.feature_names == same.feature_names
    assert found.feature_names[:3] == ("size", "size: missing", "count")
    np.testing.assert_array_equal(found.features, same.features)
    assert np.diff(found.features[:, list(found.feature_names).index("day")]).tolist() == [1] * 39


def test_headers_are_told_from_rows(tmp_path):
    def names(written, **options):
        (tmp_path / "x.csv").write_text(written)
        found = load_dataset(
            f"csv:{tmp_path / 'x.csv'}", label="last", table=TableOptions(**options)
        )
        return tuple(column.name for column in found.plan.columns)

    rows = "".join(f"{a},{b},{c}\n" for a, b, c in zip("xyxyxy", "uuvvuv", "ababab", strict=True))
    assert names(rows) == ("1", "2")
    assert names("shape,colour,kind\n" + rows) == ("shape", "colour")
    assert names("x,u,a\n" + rows, header="yes") == ("x", "u")
    assert names("shape,colour,kind\n" + rows, header="no") == ("1", "2")
    # pandas names the columns of an array by their numbers.
    assert names("0,1,2\n" + "1.5,2.5,a\n2.5,1.5,b\n" * 3) == ("0", "1")
    assert names("town,2019,2020,2021,kind\n" + "x,1,2,3,a\ny,2,3,4,b\n" * 3)[1] == "2019"
    assert names('"a\n(cm)",b,kind\n' + rows) == ("a\n(cm)", "b")
    assert names("a,a (2),a,a,kind\n" + "u,v,w,x,a\nv,u,w,z,b\n" * 3)[2:] == ("a (3)", "a (4)")
    assert names(",,kind\n" + rows) == ("column 1", "column 2")
    assert names("x,x,kind\n" + rows.replace("x", "w")) == ("x", "x (2)")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("x,label\n1,0\n2,1,3\n", "row 3 has 3 fields, not 2"),
        ("label,a\n", "at least one row of data"),
        ("label,a\n\n\n", "at least one row of data"),
        ("x,label\n1,\n2,\n", "no row has a label in the column label"),
        ("x,label\n1e39,0\n2,1\n", "row 2, column 'x': expected a finite number, got '1e39'"),
        ("", "the file is empty"),
        ("just a text\nof lines\n", "separated by a comma, a semicolon, a tab or a bar, got 'just"),
        ("x,label\nred,1\n1,0\n", r"no column beside 'label' .* x \(it is a name of the row"),
        ("\x00\x01,\x02\n", "not a text"),
        ('{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n', "JSON, not a table: save it as CSV or Parquet"),
        ("@RELATION iris\n@DATA\n1,2\n", "an ARFF file, not a table"),
        (
            "x,kind\n" + "1,a\n2,b\n" * 10 + '3,"cat\n' + "1,a\n2,b\n" * 10,
            "row 21 of the data, column 'kind': a quote is not closed",
        ),
        ("1.5 2.5 a\n1.0 2.0 b\n", "expected fields separated by a comma"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(tmp_path, written, message):
    (tmp_path / "a.csv").write_text(written)
    with pytest.raises(ValueError, match=rf"a\.csv: .*{message}"):
        load_dataset(f"csv:{tmp_path / 'a.csv'}")


def test_no_message_is_longer_than_a_screen(tmp_path):
    columns = [f"a long name of a column {j}" + "x" * 3000 for j in range(300)]
    (tmp_path / "a.csv").write_text(",".join(columns) + "\n" + ",".join(["1"] * 300) + "\n")
    with pytest.raises(ValueError, match="expected a column 'kind'") as error:
        load_dataset(f"csv:{tmp_path / 'a.csv'}", label="kind")
    assert len(str(error.value)) < 2000


def test_one_column_is_a_table_too(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n2.5\n")
    found = feature_chunks(f"csv:{tmp_path / 'a.csv'}", plan_of_numbers(("x",)))
    assert np.concatenate(list(found.arrays)).tolist() == [[1.0], [2.5]]
    with pytest.raises(ValueError, match="no column beside 'x' to learn from; left out are none"):
        load_dataset(f"csv:{tmp_path / 'a.csv'}")
