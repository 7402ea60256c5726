"""The tree of errors: codes are unique and stable, messages name what was wrong."""

import pytest

from service import errors
from service.errors import CapacityError, ClientError, GlimpseError, InvalidParameter, ServerError


def every_error() -> list[type[GlimpseError]]:
    return [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, GlimpseError)]


def test_codes_are_kebab_case_and_unique() -> None:
    """Clients can tell all errors apart by their codes."""
    codes = [error.code for error in every_error()]

    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and code.replace("-", "").isalpha() for code in codes)


def test_every_error_is_drawn_in_the_tree() -> None:
    """The tree in the module's docstring shows every class."""
    assert errors.__doc__ is not None

    assert [error.__name__ for error in every_error() if error.__name__ not in errors.__doc__] == []


@pytest.mark.parametrize(
    ("error", "side"),
    [
        (errors.UndecodableInput, ClientError),
        (errors.TooLarge, ClientError),
        (errors.UnsupportedType, ClientError),
        (errors.InvalidParameter, ClientError),
        (errors.UnknownModel, ClientError),
        (errors.UnknownTask, ClientError),
        (errors.Unauthorized, ClientError),
        (errors.Overloaded, CapacityError),
        (errors.NotReady, CapacityError),
        (errors.DeadlineExceeded, CapacityError),
        (errors.StreamTooSlow, CapacityError),
        (errors.InferenceFailed, ServerError),
        (errors.ArtifactRejected, ServerError),
        (errors.DeviceUnavailable, ServerError),
        (errors.Cancelled, GlimpseError),
    ],
)
def test_error_lies_on_the_side_of_whose_fault_it_is(error: type[GlimpseError], side: type[GlimpseError]) -> None:
    """An error belongs to the client, to capacity, to the server, or to none of them."""
    assert error.__base__ is side


def test_invalid_parameter_names_the_parameter_first() -> None:
    """The message is a sentence that begins with the parameter's name."""
    error = InvalidParameter("size", "must be 28..1024, not 5")

    assert str(error) == "size must be 28..1024, not 5"
    assert error.parameter == "size"
