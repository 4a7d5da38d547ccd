"""Addition and subtraction, worked out digit by digit from the right, as taught in school: the model sees its own carries."""

from .common import Chat, fitting

QUESTIONS = {
    "+": {
        "en": "{a}+{b}|{a} + {b}|{a}+{b}=|{a} + {b} = ?|{a}+{b}=?|What is {a}+{b}?|What is {a} + {b}?|What is {a} plus {b}?|{a} plus {b}|Add {a} and {b}|Calculate {a} + {b}|How much is {a} plus {b}?|Compute {a}+{b}",
        "zh": "{a}加{b}|{a}加{b}等于多少？|{a}加{b}等于几|{a}+{b}等于多少？|{a} + {b} 等于多少？|计算{a}+{b}|计算 {a} + {b}|{a}加上{b}是多少？|求{a}加{b}|算一下{a}+{b}|请计算{a}加{b}",
    },
    "-": {
        "en": "{a}-{b}|{a} - {b}|{a}-{b}=|{a} - {b} = ?|{a}-{b}=?|What is {a}-{b}?|What is {a} - {b}?|What is {a} minus {b}?|{a} minus {b}|Subtract {b} from {a}|Calculate {a} - {b}|How much is {a} minus {b}?|Compute {a}-{b}",
        "zh": "{a}减{b}|{a}减{b}等于多少？|{a}减{b}等于几|{a}-{b}等于多少？|{a} - {b} 等于多少？|计算{a}-{b}|计算 {a} - {b}|{a}减去{b}是多少？|求{a}减{b}|算一下{a}-{b}|请计算{a}减{b}",
    },
}
RESULT = {"en": " so {}", "zh": " 得 {}"}


def working(a, op, b):
    """The sums of the digits, from the right: "5+8=13,4+7+1=12,3+2+1=6"; in a subtraction what is borrowed comes first."""
    steps, carry = [], 0
    x, y = str(a)[::-1], str(b)[::-1]
    for i in range(max(len(x), len(y))):
        p = int(x[i]) if i < len(x) else 0
        q = int(y[i]) if i < len(y) else 0
        tail = f"{op}1" if carry else ""
        if op == "+":
            total = p + q + carry
            carry = total >= 10
        else:
            borrows = p < q + carry
            p += 10 * borrows
            total = p - q - carry
            carry = borrows
        steps.append(f"{p}{op}{q}{tail}={total}")
    return ",".join(steps)


def number(rng):
    digits = rng.choices([1, 2, 3], [0.08, 0.42, 0.5])[0]
    return rng.randint(10 ** (digits - 1), 10**digits - 1)


def draw(rng, split):
    op = rng.choice("+-")
    a, b = number(rng), number(rng)
    if split == "test":
        a, b = (rng.randint(10, 999) for _ in "ab")
    if op == "-" and a < b:
        a, b = b, a
    first, second = sorted([a, b]) if op == "+" else (a, b)
    return [("sum", first, op, second)], (a, op, b)


def example(rng, language, split):
    a, op, b = fitting(split, lambda: draw(rng, split))
    result = a + b if op == "+" else a - b
    question = rng.choice(QUESTIONS[op][language].split("|")).format(a=a, b=b)
    answer = working(a, op, b) + RESULT[language].format(result)
    return Chat(question, answer)
