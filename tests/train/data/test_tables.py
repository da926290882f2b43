import pytest

from tests.train.one_line import error_of
from train.data.tables import read_table
from train.errors import DataError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table.csv"


def parse(row):
    return int(row["number"]), row["text"]


def read(path):
    return read_table(path, ("number", "text"), parse)


def test_rows_come_in_the_order_of_the_file_and_other_columns_do_not_matter(path):
    path.write_text('other,text,number\nx,"two, and\na line",2\ny,één,1\n', encoding="utf-8")
    assert read(path) == [(2, "two, and\na line"), (1, "één")]


def test_a_header_alone_is_an_empty_table(path):
    path.write_text("number,text\n")
    assert read(path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("number\n1\n", "lacks the column text; it must have number, text", id="column"),
        pytest.param("", "lacks the column number, text; it must have number, text", id="empty"),
        pytest.param("number,text\n1,a\nten,b\n", ", line 3: invalid literal for int() with base 10: 'ten'", id="no number"),
        pytest.param("number,text\n,a\n", ", line 2: invalid literal for int() with base 10: ''", id="nothing"),
        pytest.param('number,text\n1,"a\nb\nc"\nten,b\n', ", line 5: invalid literal", id="after a row of three lines"),
    ],
)
def test_says_which_file_and_which_line_is_wrong(path, text, message):
    path.write_text(text)
    assert f"{path}{message if message.startswith(',') else ' ' + message}" in error_of(lambda: read(path), DataError)


def test_a_row_that_ends_early_has_nothing_in_its_last_columns(path):
    path.write_text("number,text\n7\n")
    assert read(path) == [(7, "")]


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (KeyError("anything"), "line 2: 'anything' is not known"),
        (KeyError(("a", "b")), "line 2: ('a', 'b') is not known"),
        (ValueError("it must not"), "line 2: it must not"),
        (OverflowError("too large"), "line 2: too large"),
    ],
)
def test_what_a_row_is_refused_for_is_told_with_its_line(path, raised, message):
    def refuse(row):
        raise raised

    path.write_text("number,text\n1,a\n")
    assert error_of(lambda: read_table(path, ("number",), refuse), DataError) == f"{path}, {message}"


def test_a_mistake_in_the_reader_itself_is_not_taken_for_bad_data(path):
    path.write_text("number,text\n1,a\n")
    with pytest.raises(ZeroDivisionError):
        read_table(path, ("number",), lambda row: 1 // 0)


def test_a_file_that_cannot_be_read(path):
    assert error_of(lambda: read(path), DataError) == f"{path} cannot be read: No such file or directory"
    path.mkdir()
    assert error_of(lambda: read(path), DataError) == f"{path} cannot be read: Is a directory"


def test_a_file_in_another_encoding(path):
    path.write_bytes("number,text\n1,é\n".encode("latin-1"))
    assert f"{path} cannot be read: 'utf-8' codec can't decode byte 0xe9" in error_of(lambda: read(path), DataError)
