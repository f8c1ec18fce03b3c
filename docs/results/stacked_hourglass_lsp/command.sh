pypose-ops train stacked_hourglass --precision 32-true --weights stacked_hourglass/weights.safetensors \
  --data lsp:lsp_dataset.zip --epochs 12 --lr 5e-4 --batch 16 --ema 0.99 --out stacked_hourglass_lsp
