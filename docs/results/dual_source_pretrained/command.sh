pypose-ops train dual_source --preset efficientnet_lite0 --recipe --precision 32-true \
  --set "part_size=[48,48]" --set "grid=[8,8]" --set "scales=[1.2]" --backbone heatmap_net/weights.safetensors \
  --freeze nets.part.features.stem --freeze nets.part.features.blocks.0 --freeze nets.part.features.blocks.1 --freeze nets.part.features.blocks.2 \
  --data lsp:lsp_dataset.zip --data lspet:lspet_dataset.zip \
  --data-weight 1 --data-weight 0.12 --epochs 8 --last-epochs 2 --out dual_source_pretrained
