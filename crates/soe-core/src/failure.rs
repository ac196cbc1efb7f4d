//! What the failures of tools, of custom nodes and of LLMs have in common.

use std::error::Error;
use std::fmt;

/// The error's text; with `{:#}` also its causes, except for those that an error's own text already repeats.
pub(crate) fn display(error: &(dyn Error + 'static), f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut last = error.to_string();
    f.write_str(&last)?;
    let mut cause = error.source().filter(|_| f.alternate());
    while let Some(error) = cause {
        let text = error.to_string();
        if !last.contains(&text) {
            write!(f, ": {text}")?;
            last = text;
        }
        cause = error.source();
    }
    Ok(())
}

/// What a type has that holds an application's error in `$field`: `$type` converts from every error, and is none itself.
macro_rules! holds_an_error {
    ($type:ident, $field:tt) => {
        impl $type {
            /// What caused the error, if it says so.
            pub fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.$field.source()
            }

            /// The application's error as a trait object.
            pub fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
                self.$field.as_ref()
            }

            /// The application's error as a trait object.
            pub fn into_error(self) -> Box<dyn std::error::Error + Send + Sync> {
                self.$field
            }

            /// Whether the application's error is an `E`.
            pub fn is<E: std::error::Error + 'static>(&self) -> bool {
                self.$field.is::<E>()
            }

            /// The application's error, if it is an `E`.
            pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
                self.$field.downcast_ref()
            }
        }

        impl<E: std::error::Error + Send + Sync + 'static> From<E> for $type {
            fn from(error: E) -> Self {
                Self::new(error)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::failure::display(self.$field.as_ref(), f)
            }
        }
    };
}

pub(crate) use holds_an_error;
