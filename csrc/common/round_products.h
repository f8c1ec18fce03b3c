// PYPOSE_OPS_ROUND_PRODUCTS before a function: its products are rounded before they are added up, as torch's are, whose bits
// are wanted. Included last: clang applies it to all that follows.
#pragma once

#if defined(__clang__)
#define PYPOSE_OPS_ROUND_PRODUCTS
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#define PYPOSE_OPS_ROUND_PRODUCTS __attribute__((optimize("fp-contract=off")))
#else
#define PYPOSE_OPS_ROUND_PRODUCTS
#endif
