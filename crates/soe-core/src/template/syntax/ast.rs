//! The syntax tree of a template, as far as the translation needs it.

/// An expression; `depth` is how deep it nests.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) kind: Box<ExprKind>,
    pub(crate) depth: u16,
}

/// The kinds of expressions. Chains of one operator are flat, so that long sums don't nest.
#[derive(Clone, Debug)]
pub(crate) enum ExprKind {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    Name(String),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attr(Expr, String),
    Item(Expr, Expr),
    Slice(Expr, [Option<Expr>; 3]),
    Call(Expr, Args),
    Filter(Expr, String, Args),
    Test {
        value: Expr,
        name: String,
        args: Args,
    },
    Not(Expr),
    Negative(Expr),
    Positive(Expr),
    /// `and` (true) or `or` between the items.
    Logic(bool, Vec<Expr>),
    Compare(Expr, Vec<(&'static str, Expr)>),
    /// Operators of the same precedence, applied from the left.
    Arithmetic(Expr, Vec<(&'static str, Expr)>),
    Concat(Vec<Expr>),
    Ternary {
        test: Expr,
        then: Expr,
        otherwise: Option<Expr>,
    },
}

/// The arguments of a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args {
    pub(crate) positional: Vec<Expr>,
    pub(crate) named: Vec<(String, Expr)>,
    pub(crate) splat: Option<Expr>,
    pub(crate) named_splat: Option<Expr>,
}

impl Args {
    pub(crate) fn is_empty(&self) -> bool {
        self.positional.is_empty() && self.named.is_empty() && self.splat.is_none() && self.named_splat.is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Expr> {
        let named = self.named.iter().map(|(_, value)| value);
        self.positional.iter().chain(named).chain(&self.splat).chain(&self.named_splat)
    }
}

/// What is assigned to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Name(String),
    Namespace(String, String),
    Tuple(Vec<Target>),
}

/// A statement and the line on which it begins.
#[derive(Clone, Debug)]
pub(crate) struct Stmt {
    pub(crate) kind: StmtKind,
    pub(crate) line: usize,
}

/// The parameters of a macro, with their defaults.
pub(crate) type Params = Vec<(String, Option<Expr>)>;

/// A filter without the value that it is applied to.
pub(crate) type FilterCall = (String, Args);

#[derive(Clone, Debug)]
pub(crate) enum StmtKind {
    Text(String),
    Print(Expr),
    For {
        target: Target,
        iter: Expr,
        test: Option<Expr>,
        recursive: bool,
        body: Vec<Stmt>,
        otherwise: Vec<Stmt>,
    },
    If {
        branches: Vec<(Expr, Vec<Stmt>)>,
        otherwise: Vec<Stmt>,
    },
    Set(Target, Expr),
    SetBlock(Target, Vec<FilterCall>, Vec<Stmt>),
    With(Vec<(Target, Expr)>, Vec<Stmt>),
    Macro(String, Params, Vec<Stmt>),
    CallBlock(Params, Expr, Vec<Stmt>),
    FilterBlock(Vec<FilterCall>, Vec<Stmt>),
    Block(String, Vec<Stmt>),
    AutoEscape(Expr, Vec<Stmt>),
}

impl ExprKind {
    /// Every direct part of this expression.
    pub(crate) fn children(&self) -> Vec<&Expr> {
        use ExprKind as K;
        match self {
            K::None | K::Bool(_) | K::Int(_) | K::Float(_) | K::Str(_) | K::Name(_) => Vec::new(),
            K::List(items) | K::Tuple(items) | K::Logic(_, items) | K::Concat(items) => items.iter().collect(),
            K::Dict(pairs) => pairs.iter().flat_map(|(key, value)| [key, value]).collect(),
            K::Attr(value, _) | K::Not(value) | K::Negative(value) | K::Positive(value) => vec![value],
            K::Item(value, key) => vec![value, key],
            K::Slice(value, bounds) => std::iter::once(value).chain(bounds.iter().flatten()).collect(),
            K::Call(value, args) | K::Filter(value, _, args) | K::Test { value, args, .. } => {
                std::iter::once(value).chain(args.iter()).collect()
            }
            K::Compare(first, rest) | K::Arithmetic(first, rest) => {
                std::iter::once(first).chain(rest.iter().map(|(_, value)| value)).collect()
            }
            K::Ternary { test, then, otherwise } => [then, test].into_iter().chain(otherwise).collect(),
        }
    }

    /// Whether this is a literal that contains literals only.
    pub(crate) fn is_constant(&self) -> bool {
        use ExprKind as K;
        match self {
            K::None | K::Bool(_) | K::Int(_) | K::Float(_) | K::Str(_) => true,
            K::List(_) | K::Tuple(_) => self.children().iter().all(|item| item.kind.is_constant()),
            _ => false,
        }
    }
}
